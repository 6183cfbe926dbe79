//! The shop's products, composed from a few lists of words: the same number is always the same product. Pure.

use std::hash::BuildHasher as _;

/// The shop opens with so many.
pub(super) const ROWS: u32 = 1_500;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    pub name: String,
    pub description: String,
    pub category: &'static str,
    pub price: f64,
    pub stock: i32,
}

struct Category {
    name: &'static str,
    /// Least and greatest price.
    price: (u32, u32),
    materials: &'static [&'static str],
    /// A thing, and what it is for.
    things: &'static [(&'static str, &'static str)],
    /// What can be said of any of them.
    features: &'static [&'static str],
}

/// The product of this number.
pub(super) fn product(number: u64) -> Product {
    let category = &CATEGORIES[(number % CATEGORIES.len() as u64) as usize];
    let &(thing, purpose) = draw(category.things, number, "thing");
    let material = draw(category.materials, number, "material");
    let adjective = draw(&ADJECTIVES, number, "adjective");
    let colour = draw(&COLOURS, number, "colour");
    let feature = draw(category.features, number, "feature");
    let care = draw(&CARE, number, "care");
    let (least, greatest) = category.price;
    let euros = least + (hash(number, "euros") % u64::from(greatest - least)) as u32;
    let cents = *draw(&[0.0, 0.49, 0.50, 0.90, 0.95, 0.99], number, "cents");
    Product {
        name: format!("{adjective} {material} {thing}, {colour}"),
        description: format!("{} for {purpose}. {feature} {care}", capitalised(thing)),
        category: category.name,
        price: f64::from(euros) + cents,
        stock: (hash(number, "stock") % 120) as i32,
    }
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(text.ceil_char_boundary(1));
    first.to_uppercase() + rest
}

/// One of `list`, decided by the number and by what it is drawn for.
pub(super) fn draw<'l, T>(list: &'l [T], number: u64, what: &str) -> &'l T {
    &list[hash(number, what) as usize % list.len()]
}

pub(super) fn hash(number: u64, what: &str) -> u64 {
    foldhash::quality::FixedState::with_seed(2_026).hash_one((number, what))
}

const ADJECTIVES: [&str; 16] = [
    "Light", "Sturdy", "Quiet", "Compact", "Plain", "Classic", "Folding", "Everyday", "Slim",
    "Warm", "Handmade", "Little", "Large", "Simple", "Fine", "Rugged",
];

const COLOURS: [&str; 14] = [
    "moss green",
    "slate grey",
    "sand",
    "navy blue",
    "brick red",
    "charcoal",
    "cream",
    "ochre yellow",
    "sky blue",
    "rust orange",
    "white",
    "black",
    "plum",
    "teal",
];

const CARE: [&str; 10] = [
    "Easy to clean with a damp cloth.",
    "Made to be repaired.",
    "Comes with a bag to keep it in.",
    "Packed in paper only.",
    "Made in a small workshop.",
    "Parts can be ordered one by one.",
    "Lasts for many years.",
    "A good present.",
    "Tested by our own staff.",
    "Returns are free for a month.",
];

const CATEGORIES: [Category; 10] = [
    Category {
        name: "Camping",
        price: (14, 320),
        materials: &["canvas", "nylon", "ripstop", "cotton", "waxed"],
        things: &[
            ("tent for two", "nights on the trail, and rain that will not stop"),
            ("sleeping bag", "cold nights under the stars"),
            ("hammock", "an afternoon between two trees"),
            ("camp stove", "coffee and soup far from any kitchen"),
            ("rucksack", "long walks with food for three days"),
            ("lantern", "reading in the tent after sunset"),
            ("folding chair", "sitting by the lake or the fire"),
            ("water bottle", "a long way between two springs"),
        ],
        features: &[
            "Waterproof, with sealed seams.",
            "Weighs less than two pounds.",
            "Packs down to the size of a loaf of bread.",
            "Stands up to wind and rain.",
            "Sets up in two minutes without tools.",
        ],
    },
    Category {
        name: "Kitchen",
        price: (6, 140),
        materials: &["cast iron", "steel", "copper", "beech", "enamel"],
        things: &[
            ("frying pan", "eggs, pancakes and steaks"),
            ("chef's knife", "vegetables, herbs and everything on the board"),
            ("teapot", "four cups of tea that stay hot"),
            ("coffee grinder", "fresh coffee in the morning"),
            ("cutting board", "chopping without slipping"),
            ("stock pot", "soups and stews for the whole family"),
            ("bread tin", "sourdough with a good crust"),
            ("pepper mill", "freshly ground pepper at the table"),
        ],
        features: &[
            "Works on gas, electric and induction.",
            "Stays sharp for a long time.",
            "Heats evenly and keeps the heat.",
            "The handle stays cool.",
            "Can go into the dishwasher.",
        ],
    },
    Category {
        name: "Clothing",
        price: (12, 240),
        materials: &["wool", "linen", "cotton", "fleece", "denim"],
        things: &[
            ("rain jacket", "wet days in town and in the hills"),
            ("jumper", "cool evenings and cold offices"),
            ("hiking socks", "long walks without blisters"),
            ("scarf", "windy mornings"),
            ("work shirt", "the garden and the workshop"),
            ("winter coat", "snow, frost and waiting for the bus"),
            ("gloves", "cold hands on the bicycle"),
            ("sun hat", "summer days on the beach"),
        ],
        features: &[
            "Keeps water out and lets the skin breathe.",
            "Soft, and does not itch.",
            "With deep pockets that close.",
            "Dries overnight on a line.",
            "Cut wide at the shoulders.",
        ],
    },
    Category {
        name: "Cycling",
        price: (8, 260),
        materials: &["aluminium", "leather", "rubber", "carbon", "steel"],
        things: &[
            ("bicycle helmet", "riding to work and back again"),
            ("bike lamp", "dark roads and early mornings"),
            ("saddle", "long tours without pain"),
            ("pannier", "shopping and books on the rack"),
            ("floor pump", "hard tyres in thirty strokes"),
            ("chain lock", "leaving the bicycle at the station"),
            ("mudguard", "dry feet on wet streets"),
            ("repair kit", "a flat tyre in the middle of nowhere"),
        ],
        features: &[
            "Fits every common bicycle.",
            "Seen from half a mile away.",
            "Mounted in a minute without tools.",
            "Tested on ten thousand miles of road.",
            "Rust does not bite it.",
        ],
    },
    Category {
        name: "Audio",
        price: (19, 420),
        materials: &["walnut", "aluminium", "bamboo", "fabric", "steel"],
        things: &[
            ("headphones", "music and calls in a noisy train"),
            ("loudspeaker", "a living room full of music"),
            ("record player", "old records and new ones"),
            ("kitchen radio", "the news at breakfast"),
            ("microphone", "podcasts and songs at home"),
            ("earphones", "running and travelling light"),
            ("amplifier", "speakers that deserve better"),
            ("alarm clock", "waking up to birdsong"),
        ],
        features: &[
            "Wireless, and thirty hours on one charge.",
            "Keeps noise out.",
            "Deep bass and clear voices.",
            "The battery can be changed.",
            "Connects by cable and by Bluetooth.",
        ],
    },
    Category {
        name: "Garden",
        price: (5, 180),
        materials: &["ash", "steel", "terracotta", "zinc", "hemp"],
        things: &[
            ("spade", "digging beds in heavy soil"),
            ("watering can", "seedlings and pots on the balcony"),
            ("pruning shears", "roses, hedges and fruit trees"),
            ("plant pot", "herbs on the window sill"),
            ("garden hose", "thirsty lawns in July"),
            ("bird feeder", "finches and robins in winter"),
            ("wheelbarrow", "earth, leaves and firewood"),
            ("seed box", "tomatoes and lettuce from seed"),
        ],
        features: &[
            "Balanced, and kind to the back.",
            "Stands frost and sun.",
            "The blade can be sharpened.",
            "With a handle of oiled ash.",
            "Holds more than it seems.",
        ],
    },
    Category {
        name: "Home",
        price: (7, 290),
        materials: &["oak", "linen", "wool", "glass", "ceramic"],
        things: &[
            ("desk lamp", "reading and writing at night"),
            ("blanket", "the sofa on a Sunday"),
            ("vase", "a bunch of flowers from the market"),
            ("bookshelf", "paperbacks, records and plants"),
            ("wall clock", "knowing the time without a telephone"),
            ("cushion", "a hard bench or a tired back"),
            ("laundry basket", "a week of washing"),
            ("mirror", "the hall, and a last look"),
        ],
        features: &[
            "Gives a warm light that can be dimmed.",
            "Needs no tools to put together.",
            "Washable at forty degrees.",
            "Each piece looks a little different.",
            "Fits into small rooms.",
        ],
    },
    Category {
        name: "Office",
        price: (3, 210),
        materials: &["paper", "leather", "walnut", "recycled", "brass"],
        things: &[
            ("notebook", "sketches, lists and diaries"),
            ("fountain pen", "letters that somebody will keep"),
            ("keyboard", "long days of typing"),
            ("laptop bag", "a computer and its cables on the way"),
            ("desk tidy", "pens, clips and notes"),
            ("standing desk", "working on your feet"),
            ("monitor arm", "a screen at the right height"),
            ("wall calendar", "birthdays and deadlines"),
        ],
        features: &[
            "Lies flat when it is open.",
            "Quiet enough for a shared room.",
            "Takes refills of every make.",
            "Adjusts without tools.",
            "Holds a laptop of fifteen inches.",
        ],
    },
    Category {
        name: "Toys",
        price: (5, 110),
        materials: &["wooden", "felt", "cotton", "cardboard", "beech"],
        things: &[
            ("train set", "rails through the whole flat"),
            ("jigsaw puzzle", "a rainy weekend at the table"),
            ("teddy bear", "falling asleep without fear"),
            ("kite", "windy beaches and open fields"),
            ("building blocks", "towers, bridges and castles"),
            ("board game", "four players and one evening"),
            ("doll's house", "small families with big plans"),
            ("balance bike", "the first yards on two wheels"),
        ],
        features: &[
            "Painted with colours that are safe to chew.",
            "For children from three years.",
            "No batteries needed.",
            "Grows with the child.",
            "Fun for grown-ups too.",
        ],
    },
    Category {
        name: "Travel",
        price: (6, 330),
        materials: &["polycarbonate", "canvas", "leather", "nylon", "cork"],
        things: &[
            ("suitcase", "two weeks away from home"),
            ("neck pillow", "sleeping in trains and aeroplanes"),
            ("travel adapter", "sockets in a hundred and fifty countries"),
            ("wash bag", "soap, brush and all the rest"),
            ("passport wallet", "papers, cards and boarding passes"),
            ("power bank", "a telephone that must last the day"),
            ("umbrella", "sudden rain in a foreign town"),
            ("day pack", "museums, markets and mountains"),
        ],
        features: &[
            "Fits under the seat in front of you.",
            "Four wheels that make no noise.",
            "Waterproof zips on every side.",
            "Small enough for a coat pocket.",
            "With a lock that customs can open.",
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_shop_is_the_same_every_time_and_its_products_differ() {
        let all = || (1..=u64::from(ROWS)).map(product).collect::<Vec<_>>();
        assert_eq!(all(), all());
        let distinct: BTreeSet<_> =
            all().into_iter().map(|product| (product.name, product.description)).collect();
        assert!(distinct.len() > ROWS as usize * 99 / 100, "{}", distinct.len());
    }

    #[test]
    fn every_product_fits_into_its_columns() {
        for product in (1..=u64::from(ROWS) * 4).map(product) {
            assert!(product.name.len() <= 120 && product.description.len() <= 900, "{product:?}");
            assert!((3.0..1_000.0).contains(&product.price) && product.stock >= 0, "{product:?}");
        }
    }
}
