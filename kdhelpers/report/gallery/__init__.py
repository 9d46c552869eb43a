"""The gallery: static pages over every stored run, which open from the file system and need no network.

`settings` and `pictures` read what is stored, `overview` and `comparison` arrange it, `setting_page` and `study_views`
prepare the parts of pages, `pages` writes plots/index.html and a page per setting, `readme` writes the README.md of
plots/ and json_results/.
"""

from kdhelpers.report.gallery.pages import write_gallery
