"""What the fault suite itself decides: its rules can break."""
