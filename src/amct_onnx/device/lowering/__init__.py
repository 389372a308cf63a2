"""A deploy graph becomes standard operators; ``lower.lower`` drives the steps, one file each."""
