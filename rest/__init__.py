"""HTTP manners that any service could use."""
