"""What goes out and comes in as a whole: exports, imports and their formats."""
