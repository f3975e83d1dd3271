/* registry: the tables behind the lists of parts.h. */
#include "policy/parts.h"

#include <string.h>

static const kept_part *const parts[] = {
#define KEPT_ENTRY(id) &kept_score_##id.part,
    KEPT_SCORE_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_wrap_##id.part,
        KEPT_WRAP_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_alloc_##id.part,
            KEPT_ALLOC_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_part_##id,
                KEPT_PART_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_merge_##id.part,
                    KEPT_MERGE_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_control_##id.part,
                        KEPT_CONTROL_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
#define KEPT_ENTRY(id) &kept_read_##id.part,
                            KEPT_READ_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
};

static const kept_recipe *const recipes[] = {
#define KEPT_ENTRY(id) &kept_recipe_##id,
    KEPT_RECIPE_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
};

int kept_part_count(void)
{
    return (int)(sizeof parts / sizeof parts[0]);
}

const kept_part *kept_part_at(int i)
{
    return i >= 0 && i < kept_part_count() ? parts[i] : NULL;
}

const kept_part *kept_part_find(kept_axis axis, const char *name)
{
    for (int i = 0; i < kept_part_count(); i++)
        if (parts[i]->axis == axis && !strcmp(parts[i]->name, name))
            return parts[i];
    return NULL;
}

const kept_part *kept_part_default(kept_axis a)
{
    switch (a) {
    case KEPT_AXIS_WEIGHT:
        return &kept_part_unweighted;
    case KEPT_AXIS_WRAPPER:
        return &kept_wrap_tokens.part;
    case KEPT_AXIS_ALLOCATOR:
        return &kept_alloc_uniform.part;
    case KEPT_AXIS_PROTECTION:
        return &kept_part_protect;
    case KEPT_AXIS_SCHEDULE:
        return &kept_part_prefill;
    case KEPT_AXIS_POSITION:
        return &kept_part_original;
    case KEPT_AXIS_MERGE:
        return &kept_merge_drop.part;
    case KEPT_AXIS_CODEC:
        return &kept_part_f16;
    case KEPT_AXIS_CONTROLLER:
        return &kept_control_fixed.part;
    case KEPT_AXIS_READ:
        return &kept_read_all.part;
    case KEPT_AXIS_REST:
        return &kept_part_awake;
    case KEPT_AXIS_SCORE:
    case KEPT_N_AXES:
        break;
    }
    return NULL;
}

const char *kept_axis_name(kept_axis a)
{
    static const char *const names[KEPT_N_AXES] = {
        "score",    "weight", "wrapper", "allocator",  "protection", "schedule",
        "position", "merge",  "codec",   "controller", "read",       "rest"};
    return (unsigned)a < KEPT_N_AXES ? names[a] : "?";
}

int kept_recipe_count(void)
{
    return (int)(sizeof recipes / sizeof recipes[0]);
}

const kept_recipe *kept_recipe_at(int i)
{
    return i >= 0 && i < kept_recipe_count() ? recipes[i] : NULL;
}
