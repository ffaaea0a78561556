"""Where to cut a model so that given workers prove it soonest: pieces, estimates, plans and their report."""
