/* kinds: the one list of what can be trained. */
#include "train/job.h"

#include <string.h>

static const kept_trainer *const list[] = {
#define ENTRY(id) &kept_trainer_##id,
    KEPT_TRAINER_LIST(ENTRY)
#undef ENTRY
};
enum { N_KINDS = sizeof list / sizeof *list };

int kept_train_kind_count(void)
{
    return N_KINDS;
}

const kept_train_kind *kept_train_kind_at(int i)
{
    return &list[i]->kind;
}

const kept_trainer *kept_trainer_find(const char *name)
{
    for (int i = 0; i < N_KINDS; i++)
        if (!strcmp(list[i]->kind.name, name))
            return list[i];
    return NULL;
}

const kept_train_kind *kept_train_kind_find(const char *name)
{
    const kept_trainer *t = kept_trainer_find(name);
    return t ? &t->kind : NULL;
}
