"""A local web page to try a bundle: predictions (`backend`), HTTP (`server`), the page itself."""
