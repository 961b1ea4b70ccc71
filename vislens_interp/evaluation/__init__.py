"""Functions above the lens: visualisation, comparison of methods, and contact sheets of many units."""
