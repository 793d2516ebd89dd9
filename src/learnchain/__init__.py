"""learnchain: a blockchain whose blocks are won by training models that somebody asked and paid for."""
