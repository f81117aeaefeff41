"""The life of one tool call: taken, judged, recorded, carried out, answered; of a task, once."""
