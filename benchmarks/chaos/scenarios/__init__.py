"""One module a scenario: `measure(setup)` gives its figures, by key, and remarks on them."""
