"""Makes everything in data/ that is not written by hand (`make data`); the package itself needs none of it."""
