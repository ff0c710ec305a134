"""What each scheme would cost each layer, and the plan that follows. Changes no weight."""
