//! Customers made up from one number, so that everybody who starts the example sees the same ones.

use sqlx::{Sqlite, Transaction};

/// How many organizations there are.
const ORGANIZATIONS: u64 = 500;
/// How many contacts there are.
const CONTACTS: u64 = 20_000;
/// How many opportunities there are.
const OPPORTUNITIES: u64 = 8_000;

/// Fills empty tables. The statements are prepared once by the driver and run for each row, all in
/// the caller's transaction, so the disk is asked to sync once.
///
/// # Errors
///
/// Those of SQLite.
pub(crate) async fn fill(transaction: &mut Transaction<'_, Sqlite>) -> Result<(), sqlx::Error> {
    // Any number but zero will do.
    let mut dice = Dice(0x0005_eed0_0f00_dcaf);
    for id in 1..=ORGANIZATIONS {
        organization(transaction, &mut dice, id).await?;
    }
    for id in 1..=CONTACTS {
        contact(transaction, &mut dice, id).await?;
    }
    for id in 1..=OPPORTUNITIES {
        opportunity(transaction, &mut dice, id).await?;
    }
    Ok(())
}

async fn organization(
    transaction: &mut Transaction<'_, Sqlite>,
    dice: &mut Dice,
    id: u64,
) -> Result<(), sqlx::Error> {
    let name = format!(
        "{} {} {}",
        dice.pick(&COLORS),
        dice.pick(&THINGS),
        dice.pick(&FORMS)
    );
    sqlx::query("INSERT INTO organizations (id, name, industry, city) VALUES (?, ?, ?, ?)")
        .bind(id.cast_signed())
        .bind(name)
        .bind(dice.pick(&INDUSTRIES))
        .bind(dice.pick(&CITIES))
        .execute(&mut **transaction)
        .await
        .map(drop)
}

async fn contact(
    transaction: &mut Transaction<'_, Sqlite>,
    dice: &mut Dice,
    id: u64,
) -> Result<(), sqlx::Error> {
    let (first, last) = (dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
    let email = format!("{first}.{last}.{id}@example.com").to_lowercase();
    let phone = format!("+44 20 7946 {:04}", dice.below(10_000));
    sqlx::query(
        "INSERT INTO contacts (id, organization_id, name, email, phone, title)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(id.cast_signed())
    .bind(dice.one_of_first(ORGANIZATIONS))
    .bind(format!("{first} {last}"))
    .bind(email)
    .bind(phone)
    .bind(dice.pick(&TITLES))
    .execute(&mut **transaction)
    .await
    .map(drop)
}

async fn opportunity(
    transaction: &mut Transaction<'_, Sqlite>,
    dice: &mut Dice,
    id: u64,
) -> Result<(), sqlx::Error> {
    let month = dice.below(24);
    let closes_on = format!(
        "{}-{:02}-{:02}",
        2025 + month / 12,
        month % 12 + 1,
        dice.below(28) + 1
    );
    sqlx::query(
        "INSERT INTO opportunities
             (id, organization_id, contact_id, title, stage, amount_cents, closes_on)
         SELECT ?, organization_id, id, ?, ?, ?, ? FROM contacts WHERE id = ?",
    )
    .bind(id.cast_signed())
    .bind(format!(
        "{} {}",
        dice.pick(&PRODUCTS),
        dice.pick(&OCCASIONS)
    ))
    .bind(dice.pick(&STAGES))
    .bind((50_000 + dice.below(20_000_000)).cast_signed())
    .bind(closes_on)
    .bind(dice.one_of_first(CONTACTS))
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A xorshift64* generator (Marsaglia 2003, Vigna 2016): eight bytes of state, good enough for
/// customers who do not exist, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`. The slight bias of the remainder does not matter here.
    fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 16) % end
    }

    /// An id between 1 and `count`.
    fn one_of_first(&mut self, count: u64) -> i64 {
        (self.below(count) + 1).cast_signed()
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        let index = self.below(words.len() as u64);
        words[usize::try_from(index).unwrap_or_default()]
    }
}

const COLORS: [&str; 12] = [
    "Amber", "Azure", "Coral", "Crimson", "Golden", "Green", "Indigo", "Ivory", "Scarlet",
    "Silver", "Violet", "White",
];
const THINGS: [&str; 16] = [
    "Anchor", "Bridge", "Canyon", "Falcon", "Forest", "Harbour", "Lantern", "Meadow", "Mill",
    "Orchard", "Quarry", "River", "Stone", "Tower", "Valley", "Wharf",
];
const FORMS: [&str; 6] = ["Group", "Industries", "Labs", "Ltd", "Partners", "Works"];
const INDUSTRIES: [&str; 8] = [
    "Agriculture",
    "Construction",
    "Education",
    "Energy",
    "Finance",
    "Health",
    "Logistics",
    "Retail",
];
const CITIES: [&str; 10] = [
    "Bristol", "Delft", "Gdansk", "Graz", "Leeds", "Lyon", "Porto", "Tartu", "Turin", "Uppsala",
];
const FIRST_NAMES: [&str; 24] = [
    "Ada",
    "Alan",
    "Anita",
    "Barbara",
    "Claude",
    "Dennis",
    "Dorothy",
    "Edsger",
    "Emmy",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Joan",
    "John",
    "Karen",
    "Katherine",
    "Ken",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
    "Sophie",
    "Tony",
];
const LAST_NAMES: [&str; 24] = [
    "Allen",
    "Bartik",
    "Borg",
    "Clarke",
    "Easley",
    "Fisher",
    "Gray",
    "Hamilton",
    "Holberton",
    "Johnson",
    "Keller",
    "Lamarr",
    "Moore",
    "Noether",
    "Perlman",
    "Ritchie",
    "Shaw",
    "Spence",
    "Thompson",
    "Turner",
    "Vaughan",
    "Wilson",
    "Wing",
    "Young",
];
const TITLES: [&str; 8] = [
    "Buyer",
    "Chief Executive",
    "Engineer",
    "Finance Director",
    "Head of Sales",
    "Office Manager",
    "Operations Lead",
    "Researcher",
];
const PRODUCTS: [&str; 6] = [
    "Analytics",
    "Hosting",
    "Licences",
    "Support",
    "Training",
    "Workshop",
];
const OCCASIONS: [&str; 5] = ["expansion", "migration", "pilot", "renewal", "replacement"];
const STAGES: [&str; 5] = ["lead", "qualified", "proposal", "won", "lost"];
