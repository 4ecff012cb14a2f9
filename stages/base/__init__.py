"""What every stage is and is lent."""
