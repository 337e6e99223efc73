"""Models that the package ships."""
