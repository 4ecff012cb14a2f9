"""Arrays by image key; it knows no model and no data set."""
