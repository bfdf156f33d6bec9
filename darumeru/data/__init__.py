"""Where rows come from: the hub, the built-in mini bundle or a folder; pulled, checked, imported."""
