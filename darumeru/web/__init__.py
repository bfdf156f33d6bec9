"""Templates and assets that the pages of the board, the arena and lep's reports share."""
