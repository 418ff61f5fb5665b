"""How sure it was: log-probabilities, local or from a service, and whether they can be believed."""
