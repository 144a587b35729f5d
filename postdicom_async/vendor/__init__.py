"""What both PostDICOM APIs share: the fields of their nouns, checked values, typed answers, how calls are made."""
