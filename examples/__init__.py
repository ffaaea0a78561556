"""Models that are trained from data that ships with scikit-learn."""
