"""What the service is measured beside."""
