"""Results put where others see them: a model's card and repository on the hub, a data set of records, a static host."""
