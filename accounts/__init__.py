"""Who has an account, and how one gets in."""
