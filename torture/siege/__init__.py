"""The siege: what one hostile client costs everybody else, attack by attack."""
