"""Every picture that a run or a study leaves."""


def draw(run):
    pass
