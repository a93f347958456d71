"""Wrong answers that students give: each must be caught, with the hint that fits it."""
