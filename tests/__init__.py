"""The tests of Papyros: contract/ runs on every master, unit/ looks at single parts."""
