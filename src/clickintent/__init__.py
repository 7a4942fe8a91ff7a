"""clickintent."""
