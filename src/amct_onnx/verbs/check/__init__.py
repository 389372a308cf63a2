"""check: will ATC accept this deploy model?"""
