"""The stage that turns texts and images into the tables of samples and images."""
