"""Any system trained on any split; imports no stage."""
