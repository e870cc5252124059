"""From a folder of images to a deployed student: the config is made, see :mod:`.making` and :mod:`.choices`."""
