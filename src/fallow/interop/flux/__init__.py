"""Flux's application specifications, versions 7 and 8: what its nodes accept, what it costs there, and what it becomes.

Facts from RunOnFlux/flux at 845aa9b (v8.17.0): `appRequirements/appValidator.js`, `utils/appUtilities.js` and
`config/default.js`, at a height where everything that is written there has begun. Nodes check some fields by nothing
but their length, so a number passes as an image's name; so it does here, and is noted."""
