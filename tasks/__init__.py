"""Tasks as they are: their fields, how they are stored, found and listed."""
