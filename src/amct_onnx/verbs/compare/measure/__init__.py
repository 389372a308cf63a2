"""Run the models over the data and add up what differs."""
