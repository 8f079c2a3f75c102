"""Studies: a grid of recipes, trained job by job, and the report of what came out."""
