/* words: keys and values of needles. Word keys are "adjective-noun" from two lists of plain English
 * words written for this project; RULER draws them from a package with longer lists, which makes
 * keys rarer words but not a different test (docs/tasks.md).
 */
#include "task/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
static const char *const adjectives[] = {
    "able", "aged", "airy", "amber", "ample", "angry", "arid", "ashen", "autumn", "awake", "azure",
    "bald", "basic", "bitter", "blank", "bleak", "blind", "blond", "blue", "blunt", "bold", "bossy",
    "brave", "brief", "bright", "brisk", "broad", "broken", "bronze", "brown", "bumpy", "busy",
    "calm", "careful", "caring", "cheap", "cheerful", "chilly", "civil", "clean", "clear", "clever",
    "close", "cloudy", "clumsy", "coarse", "cold", "cool", "copper", "coral", "cosy", "crisp",
    "crooked", "cruel", "curious", "curly", "daily", "damp", "dark", "dear", "deep", "dense",
    "distant", "dizzy", "double", "dry", "dull", "dusty", "eager", "early", "earnest", "easy",
    "elder", "empty", "endless", "equal", "even", "exact", "fair", "faint", "famous", "fancy",
    "fast", "fierce", "fine", "firm", "first", "flat", "fond", "foolish", "foreign", "fragile",
    "frank", "free", "fresh", "frozen", "full", "funny", "fussy", "gentle", "giant", "gifted",
    "glad", "gleaming", "gloomy", "golden", "good", "graceful", "grand", "grateful", "gray",
    "great", "greedy", "green", "grumpy", "handy", "happy", "hard", "harsh", "hasty", "hazy",
    "healthy", "heavy", "helpful", "hidden", "high", "hollow", "honest", "hot", "huge", "humble",
    "hungry", "icy", "idle", "jolly", "joyful", "keen", "kind", "large", "last", "late", "lazy",
    "lean", "light", "little", "lively", "local", "lonely", "long", "loose", "loud", "lovely",
    "low", "loyal", "lucky", "magic", "major", "marble", "mellow", "merry", "mighty", "mild",
    "minor", "misty", "modern", "modest", "muddy", "narrow", "neat", "new", "noble", "noisy",
    "normal", "odd", "old", "open", "orange", "pale", "patient", "plain", "playful", "pleasant",
    "polite", "poor", "precious", "pretty", "proud", "public", "pure", "purple", "quick", "quiet",
    "rapid", "rare", "ready", "red", "rich", "ripe", "rough", "round", "royal", "rural", "rusty",
    "sad", "safe", "salty", "sandy", "scarlet", "secret", "serious", "shallow", "sharp", "shiny",
    "short", "shy", "silent", "silky", "silver", "simple", "sleepy", "slim", "slow", "small",
    "smart", "smooth", "snowy", "soft", "solar", "solid", "sour", "spare", "square", "steady",
    "steep", "sticky", "stiff", "still", "stormy", "strange", "strict", "strong", "sturdy",
    "subtle", "sudden", "sunny", "sweet", "swift", "tall", "tame", "tender", "thick", "thin",
    "thirsty", "tidy", "tiny", "tired", "tough", "tropical", "upper", "urban", "useful", "vast",
    "velvet", "violet", "vivid", "warm", "wary", "watchful", "weak", "wealthy", "weary", "wet",
    "white", "wide", "wild", "windy", "wise", "witty", "wooden", "wrong", "yellow", "young",
    "zealous",
};

static const char *const nouns[] = {
    "acorn", "actor", "address", "airport", "album", "alley", "almond", "anchor", "angle", "animal",
    "ankle", "answer", "anthem", "antler", "apple", "apron", "arch", "arena", "arm", "armor",
    "arrow", "artist", "atlas", "attic", "author", "avenue", "axe", "baby", "badge", "bag", "baker",
    "balcony", "ball", "balloon", "banana", "band", "bank", "banner", "bar", "barn", "barrel",
    "basin", "basket", "bat", "bath", "battery", "bay", "beach", "bead", "beam", "bean", "bear",
    "beard", "beaver", "bed", "bee", "beetle", "bell", "belt", "bench", "berry", "bicycle", "bird",
    "biscuit", "blade", "blanket", "blossom", "board", "boat", "body", "bone", "bonnet", "book",
    "boot", "border", "bottle", "boulder", "bowl", "box", "bracelet", "branch", "bread", "breeze",
    "brick", "bridge", "broom", "brother", "brush", "bucket", "buffalo", "building", "bulb", "bus",
    "bush", "butter", "button", "cabin", "cabinet", "cable", "cactus", "cake", "calendar", "camel",
    "camera", "camp", "canal", "candle", "canoe", "canvas", "canyon", "cap", "captain", "car",
    "card", "cargo", "carpet", "carriage", "carrot", "cart", "castle", "cat", "cave", "ceiling",
    "cellar", "chain", "chair", "chalk", "channel", "chapel", "chart", "cheese", "cherry", "chest",
    "chicken", "chimney", "church", "circle", "circus", "city", "clam", "clay", "cliff", "cloak",
    "clock", "cloth", "cloud", "clover", "coach", "coast", "coat", "coconut", "coffee", "coin",
    "collar", "comet", "compass", "cook", "corner", "cottage", "cotton", "couch", "cousin", "cow",
    "crab", "cradle", "crane", "crate", "crayon", "creek", "crew", "cricket", "crow", "crown",
    "crystal", "cup", "curtain", "cushion", "dam", "dancer", "dawn", "deer", "desert", "desk",
    "diamond", "diary", "dinner", "dish", "ditch", "doctor", "dog", "doll", "dolphin", "donkey",
    "door", "dove", "dragon", "drawer", "dress", "drill", "driver", "drum", "duck", "dune", "eagle",
    "ear", "earth", "echo", "edge", "egg", "elbow", "elephant", "elm", "engine", "envelope",
    "evening", "eye", "fabric", "factory", "falcon", "family", "fan", "farm", "farmer", "feast",
    "feather", "fence", "fern", "ferry", "field", "fig", "finger", "fire", "fish", "flag", "flame",
    "flask", "flower", "flute", "fog", "forest", "fork", "fort", "fountain", "fox", "frame",
    "friend", "frog", "fruit", "funnel", "garage", "garden", "garlic", "gate", "giraffe", "glacier",
    "glass", "globe", "glove", "goat", "goose", "grain", "grape", "grass", "gravel", "guitar",
    "gull", "hall", "hammer", "hand", "harbor", "harp", "hat", "hawk", "hay", "heart", "hedge",
    "helmet", "hen", "heron", "hill", "hive", "honey", "hook", "horn", "horse", "hotel", "house",
    "icicle", "inn", "ink", "iron", "island", "ivy", "jacket", "jar", "jewel", "judge", "jug",
    "jungle", "kettle", "key", "king", "kitchen", "kite", "kitten", "knee", "knife", "knight",
    "knot", "ladder", "lady", "lake", "lamb", "lamp", "lane", "lantern", "lawn", "leaf", "leather",
    "lemon", "letter", "library", "lid", "lily", "lime", "lion", "lizard", "lobby", "lock", "log",
    "lotus", "lunch", "map", "maple", "market", "mask", "mast", "meadow", "melon", "mill", "mirror",
    "monkey", "moon", "moose", "morning", "moss", "mountain", "mouse", "mouth", "museum",
    "mushroom", "music", "nail", "napkin", "neck", "needle", "nest", "net", "night", "nose",
    "notebook", "nurse", "nut", "oak", "oar", "ocean", "olive", "onion", "orchard", "otter", "oven",
    "owl", "ox", "page", "paint", "palace", "palm", "pan", "panda", "paper", "parade", "park",
    "parrot", "path", "paw", "peach", "peacock", "pear", "pearl", "pebble", "pen", "pencil",
    "pepper", "piano", "picture", "pie", "pigeon", "pillow", "pilot", "pin", "pine", "pipe",
    "pirate", "planet", "plant", "plate", "plum", "pocket", "poem", "poet", "pond", "pony", "porch",
    "port", "potato", "prairie", "prince", "puddle", "puppet", "puppy", "pump", "quarry", "queen",
    "quilt", "rabbit", "radio", "raft", "railway", "rain", "rainbow", "raven", "reef", "ribbon",
    "rice", "rider", "ring", "river", "road", "robin", "rock", "roof", "room", "root", "rope",
    "rose", "rug", "sail", "sailor", "salad", "salmon", "salt", "sand", "sandal", "saddle", "scarf",
    "school", "sea", "seal", "seed", "shadow", "shark", "sheep", "shelf", "shell", "shield", "ship",
    "shirt", "shoe", "shop", "shore", "shovel", "sister", "sky", "sled", "smoke", "snail", "snake",
    "snow", "soap", "sock", "soldier", "song", "soup", "spade", "spider", "spoon", "spring",
    "squirrel", "stable", "stage", "stair", "star", "station", "statue", "stone", "storm", "story",
    "stove", "street", "string", "student", "sugar", "summit", "sun", "sweater", "table", "tailor",
    "tea", "teacher", "temple", "tent", "theater", "thread", "throne", "thumb", "tiger", "toad",
    "tomato", "tooth", "torch", "tower", "town", "toy", "track", "trail", "train", "tree",
    "trumpet", "tunnel", "turkey", "turtle", "twig", "umbrella", "uncle", "valley", "vase",
    "village", "vine", "violin", "wagon", "wall", "walnut", "walrus", "watch", "water", "wave",
    "well", "whale", "wheat", "wheel", "whistle", "willow", "window", "wing", "winter", "wolf",
    "wool", "worker", "yard", "zebra",
};
/* clang-format on */

#define COUNT(list) ((uint32_t)(sizeof(list) / sizeof *(list)))

const char *const *kept_words(bool noun, int *n)
{
    *n = noun ? (int)COUNT(nouns) : (int)COUNT(adjectives);
    return noun ? nouns : adjectives;
}

static const char *const kind_names[] = {"word", "number", "uuid"};

bool kept_secret_kind_parse(const char *name, kept_secret_kind *out)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, kind_names[i])) {
            *out = (kept_secret_kind)i;
            return true;
        }
    return false;
}

const char *kept_secret_kind_name(kept_secret_kind kind)
{
    return kind_names[kind];
}

int kept_secret_room(kept_secret_kind kind, int digits)
{
    return kind == KEPT_SECRET_UUID     ? 48
           : kind == KEPT_SECRET_NUMBER ? (16 * digits + KEPT_DIGITS - 1) / KEPT_DIGITS
                                        : 16;
}

void kept_secret_draw(kept_rng *rng, kept_secret_kind kind, int digits, char out[KEPT_SECRET_CAP])
{
    if (kind == KEPT_SECRET_WORD) {
        const char *adjective = adjectives[kept_rng_below(rng, COUNT(adjectives))];
        const char *noun = nouns[kept_rng_below(rng, COUNT(nouns))];
        snprintf(out, KEPT_SECRET_CAP, "%s-%s", adjective, noun);
    } else if (kind == KEPT_SECRET_NUMBER) {
        const int n =
            snprintf(out, KEPT_SECRET_CAP, "%" PRIu32, 1000000 + kept_rng_below(rng, 9000000));
        for (int i = n; i < digits; i++) /* a longer one begins as the short one does */
            snprintf(out + i, 2, "%" PRIu32, kept_rng_below(rng, 10));
    } else { /* RFC 9562: version 4, variant 10, the other 122 bits random */
        const uint64_t a = kept_rng_u64(rng), b = kept_rng_u64(rng);
        snprintf(out, KEPT_SECRET_CAP, "%08x-%04x-4%03x-%04x-%012" PRIx64, (unsigned)(a >> 32),
                 (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
                 (unsigned)(0x8000 | (b >> 48 & 0x3fff)), b & UINT64_C(0xffffffffffff));
    }
}
