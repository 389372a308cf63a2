"""atc: ATC's command line for a deploy model, and its error codes."""
