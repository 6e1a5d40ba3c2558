"""Everything that reaches the controller, written down and run again.

    codec           messages and configurations as JSON, and back
    whole           all of a controller's state at one moment, as a value
    configurations  a configuration under the name that decisions carry
    segments        the files: bounded, compressed, each readable up to where it is torn
    recorder        a controller that writes down what reaches it and what comes of it
    rerun           a recording run again through the controller, and what differs
    stored          stored decisions made again under the configuration of their time

Nothing here decides anything about the fleet, and no trouble here is one of the fleet's.
"""
