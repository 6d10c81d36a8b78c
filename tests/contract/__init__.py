"""One suite states the contract of a master and runs on every implementation."""
