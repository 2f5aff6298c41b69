"""What one sees from outside: metrics and logs."""
