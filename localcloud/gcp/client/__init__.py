"""What a client's process needs besides variables of its environment."""
