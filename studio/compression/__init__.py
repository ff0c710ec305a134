"""A plan carried out: weights rounded, packed and written. Knows nothing of chats or exports."""
