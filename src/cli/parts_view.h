/* parts_view: how ls and show put what the registry says into words. */
#ifndef CLI_PARTS_VIEW_H
#define CLI_PARTS_VIEW_H

#include "policy/strategy.h"

/* The whole page of a part or recipe on stdout. */
void kept_part_print(const kept_part *p);
void kept_recipe_print(const kept_recipe *r);
/* paper and deviations, if any */
void kept_source_print(const char *paper, const char *deviations);

#endif
