"""What each verb does, one folder each, named as it is typed."""
