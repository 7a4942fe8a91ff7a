"""What people of the simulated bank want: 35 intents, the products they lead to, and the tiles that fit them.

Numbers are judgements about how a bank's customers behave. The weights of pages, products and tiles were
written down once; rates of conversion (``latent``, ``TASTES``) and noise (``web``) were then set by looking
at how often people convert, what the oracle gains, and what page counts find. Pages are shared:
calculators, rates, offers, help and application steps serve several intents.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PRODUCTS = (
    "credit_card",
    "travel_card",
    "mortgage",
    "savings",
    "cd",
    "checking",
    "auto_loan",
    "personal_loan",
    "investment",
    "insurance",
)

TILES = (
    "cash_back_card",
    "travel_card",
    "balance_transfer",
    "home_loan",
    "refinance",
    "savings",
    "cd",
    "checking_bonus",
    "auto_loan",
    "personal_loan",
    "investing",
    "retirement",
    "insurance",
    "card_security",
)

#: How often each tile was clicked before, as log-odds against the average: what the logging policy knows.
TILE_POPULARITY = (0.5, 0.3, 0.0, 0.1, -0.1, 0.6, 0.2, 0.4, 0.0, -0.1, 0.1, -0.3, -0.5, 0.2)

THEMES = (
    "cards",
    "home",
    "save",
    "everyday",
    "vehicle",
    "borrow",
    "study",
    "invest",
    "protect",
    "business",
    "service",
    "info",
)

#: Customer segments: share of people, and how much likelier than the average each theme is among them.
SEGMENTS: dict[str, tuple[float, dict[str, float]]] = {
    "student": (
        0.13,
        {"study": 4.0, "everyday": 2.2, "cards": 1.3, "home": 0.15, "invest": 0.5, "info": 2.0},
    ),
    "starter": (0.24, {"cards": 1.6, "vehicle": 1.5, "study": 1.5, "borrow": 1.3, "home": 0.8, "save": 0.8}),
    "family": (0.24, {"home": 2.2, "protect": 1.8, "save": 1.1, "vehicle": 1.3, "study": 0.4, "cards": 0.8}),
    "affluent": (0.14, {"invest": 2.8, "home": 1.3, "save": 1.4, "borrow": 0.3, "study": 0.2, "cards": 1.1}),
    "retired": (
        0.16,
        {"save": 2.4, "invest": 1.4, "service": 1.6, "home": 0.4, "study": 0.1, "vehicle": 0.6},
    ),
    "owner": (0.09, {"business": 9.0, "cards": 1.0, "borrow": 1.3, "study": 0.2, "everyday": 0.7}),
}

#: Tastes inside a segment: how readily people sign, and what they lean to. Every taste is equally frequent.
TASTES: tuple[tuple[float, dict[str, float]], ...] = (
    (0.5, {}),
    (1.0, {"credit_card": 1.5, "travel_card": 1.6, "personal_loan": 1.3}),
    (1.0, {"savings": 1.6, "cd": 1.6, "checking": 1.4, "investment": 1.3, "credit_card": 0.7}),
    (1.5, {}),
)


class Intent(NamedTuple):
    """One intent.

    ``share`` is its frequency before segments; ``pace`` multiplies dwell; ``late`` names pages which
    people with this intent come to later in a visit than the page's role suggests, ``early`` sooner.
    Weights are relative. ``campaigns`` names the advertisements that reach people with this intent.
    """

    name: str
    share: float
    theme: str
    kind: Literal["acquire", "service"]
    pages: str
    products: str
    tiles: str
    related: tuple[str, ...]
    terms: tuple[str, ...]
    campaigns: tuple[str, ...] = ()
    pace: float = 1.0
    early: str = ""
    late: str = ""


INTENTS: tuple[Intent, ...] = (
    Intent(
        "cash back card shopping", 9.0, "cards", "acquire",
        "cards:2 cards_compare:3 card_cash:4 card_rates:2 art_rewards:2 offers:1.5 card_qualify:1 "
        "apply_cards_1:2",
        "credit_card:1", "cash_back_card:1 balance_transfer:0.3",
        ("credit card pre-approval", "travel card research", "balance transfer"),
        ("cash back card", "best credit card", "no annual fee card", "2 percent cash back",
         "credit card bonus"),
        ("cards-cash-back", "spring-offers"), 0.9,
    ),
    Intent(
        "credit card pre-approval", 8.0, "cards", "acquire",
        "cards:2 card_qualify:5 card_cash:1.5 card_travel:0.6 card_secured:0.7 card_rates:1 "
        "apply_cards_1:3 art_credit:0.6",
        "credit_card:0.85 travel_card:0.15", "cash_back_card:0.9 travel_card:0.3 card_security:0.1",
        ("cash back card shopping", "first credit card", "travel card research"),
        ("pre approved", "preapproval credit card", "do i qualify", "credit card without hard pull",
         "credit limit"),
        ("cards-pre-approved", "cards-cash-back"), 0.8, "card_qualify",
    ),
    Intent(
        "travel card research", 6.0, "cards", "acquire",
        "cards:1.2 card_travel:4 travel_benefits:3 art_miles:2.5 cards_compare:2.5 help_travel:0.8 "
        "card_qualify:0.8 apply_cards_1:1.5",
        "travel_card:0.85 credit_card:0.15", "travel_card:1 cash_back_card:0.35 insurance:0.1",
        ("cash back card shopping", "credit card pre-approval"),
        ("travel card", "foreign transaction fee", "airport lounge access", "welcome bonus points",
         "miles card"),
        ("voyager-travel", "spring-offers"), 1.2,
    ),
    Intent(
        "balance transfer", 4.0, "borrow", "acquire",
        "card_transfer:4 cards_compare:2 card_rates:2 calc_debt:2 art_debt:1.5 debt_consol:0.7 "
        "cards:1 apply_cards_1:2",
        "credit_card:0.8 personal_loan:0.2", "balance_transfer:1 personal_loan:0.4 cash_back_card:0.2",
        ("debt consolidation", "cash back card shopping"),
        ("card balance transfer", "0 apr card", "transfer fee", "lower interest card",
         "18 months no interest"),
        ("zero-interest-transfer",), 1.1,
    ),
    Intent(
        "first credit card", 3.0, "study", "acquire",
        "card_student:3 card_secured:3 art_credit:3 cards:1.5 cards_compare:1 card_qualify:1.2 "
        "checking_student:0.5 apply_cards_1:1.5",
        "credit_card:0.9 checking:0.1", "cash_back_card:0.8 checking_bonus:0.3",
        ("credit card pre-approval", "student checking", "cash back card shopping"),
        ("secured card", "build credit", "student credit card", "no credit history", "first credit card"),
        ("campus-start",), 1.1,
    ),
    Intent(
        "home purchase planning", 6.0, "home", "acquire",
        "mortgages:2 mortgage_buy:3 mortgage_rates:2.5 calc_mortgage:3 calc_afford:3 "
        "art_firsthome:2.5 art_closing:1.5 mortgage_qualify:1 apply_mortgage_1:0.7",
        "mortgage:1", "home_loan:1 savings:0.2 insurance:0.2",
        ("mortgage pre-approval", "mortgage refinance", "emergency fund planning"),
        ("first time home buyer", "how much house", "down payment", "closing costs", "fha loan",
         "mortgage calculator"),
        ("home-loans-spring",), 1.3, "calc_afford", "mortgage_rates",
    ),
    Intent(
        "mortgage pre-approval", 4.0, "home", "acquire",
        "mortgage_qualify:4 mortgage_buy:2 mortgage_rates:3 calc_mortgage:2 mortgages:1.5 "
        "appointments:0.8 art_closing:0.7 apply_mortgage_1:3",
        "mortgage:1", "home_loan:1 refinance:0.2 insurance:0.2",
        ("home purchase planning", "mortgage refinance"),
        ("mortgage pre approval", "pre approval letter", "mortgage rates today", "mortgage documents",
         "loan officer"),
        ("home-loans-spring",), 1.0, "mortgage_rates",
    ),
    Intent(
        "mortgage refinance", 4.5, "home", "acquire",
        "refinance:4 calc_refi:3 mortgage_rates:3 art_refi:2 calc_mortgage:1.2 home_equity:0.8 "
        "mortgages:1 apply_mortgage_1:2",
        "mortgage:1", "refinance:1 home_loan:0.35",
        ("home equity borrowing", "home purchase planning"),
        ("refinance", "refinance rates", "cash out refinance", "15 year fixed", "refinance break even"),
        ("refi-watch", "home-loans-spring"), 1.2, "mortgage_rates", "refinance",
    ),
    Intent(
        "home equity borrowing", 2.0, "home", "acquire",
        "home_equity:4 refinance:1.2 mortgage_rates:1.2 home_improve:1 rates:1 calc_mortgage:0.7 "
        "mortgages:1 apply_mortgage_1:1.5",
        "mortgage:0.8 personal_loan:0.2", "refinance:0.8 personal_loan:0.4 home_loan:0.3",
        ("mortgage refinance", "home improvement loan"),
        ("heloc", "home equity line", "home equity rates", "borrow against house"),
        ("refi-watch",), 1.1,
    ),
    Intent(
        "high-yield savings", 6.0, "save", "acquire",
        "savings:2 savings_high:4 savings_rates:3 rates:2 art_cdsave:1 calc_goal:0.8 cds:0.7 "
        "offers:0.8 apply_deposits_1:2",
        "savings:0.85 cd:0.15", "savings:1 cd:0.4 checking_bonus:0.2",
        ("CD rate comparison", "emergency fund planning", "checking account opening"),
        ("high yield savings", "savings apy", "best savings rate", "money market", "savings minimum balance"),
        ("savings-rate-rise", "spring-offers"), 0.9, "savings_rates",
    ),
    Intent(
        "CD rate comparison", 5.0, "save", "acquire",
        "cds:2 cd_rates:4 rates:2 calc_ladder:2 art_cdsave:1.5 savings_rates:1.5 savings_high:0.8 "
        "apply_deposits_1:1.8",
        "cd:0.85 savings:0.15", "cd:1 savings:0.5",
        ("high-yield savings", "retirement saving"),
        ("cd rates", "12 month cd", "cd ladder", "no penalty cd", "early withdrawal penalty",
         "certificate of deposit"),
        ("cd-spring-special", "savings-rate-rise"), 0.9, "cd_rates", "calc_ladder",
    ),
    Intent(
        "emergency fund planning", 1.5, "save", "acquire",
        "art_emergency:4 calc_goal:3 savings:2 savings_high:2 savings_kids:1 learn:1.5 calc_debt:0.5 "
        "apply_deposits_1:0.8",
        "savings:0.95 cd:0.05", "savings:1 cd:0.2",
        ("high-yield savings", "debt consolidation"),
        ("emergency fund", "how much to save", "savings goal", "kids savings account"),
        ("savings-rate-rise",), 1.3,
    ),
    Intent(
        "checking account opening", 6.0, "everyday", "acquire",
        "checking:2.5 checking_every:3 checking_compare:3 checking_fees:2 offers:2 help_deposit:0.8 "
        "branches:0.7 apply_deposits_1:2.5",
        "checking:0.9 savings:0.1", "checking_bonus:1 savings:0.3",
        ("switching banks", "high-yield savings", "student checking"),
        ("open checking account", "checking bonus", "free checking", "overdraft fee", "joint account"),
        ("checking-bonus-300", "spring-offers"), 0.8, "offers",
    ),
    Intent(
        "student checking", 1.5, "study", "acquire",
        "checking_student:4 checking:1.5 checking_compare:1.5 checking_fees:1.5 card_student:1 "
        "branches:1 apply_deposits_1:2",
        "checking:0.85 credit_card:0.15", "checking_bonus:1 cash_back_card:0.3",
        ("first credit card", "checking account opening", "student loan refinance"),
        ("student account", "student checking", "account under 18", "college account"),
        ("campus-start",), 0.8,
    ),
    Intent(
        "switching banks", 1.2, "everyday", "acquire",
        "art_switch:4 help_deposit:2.5 checking:2 checking_compare:1.5 help_routing:1 offers:1 "
        "apply_deposits_1:1.2",
        "checking:0.9 savings:0.1", "checking_bonus:1 savings:0.3",
        ("checking account opening",),
        ("switch banks", "move direct deposit", "switch kit", "close account at other bank"),
        ("checking-bonus-300",), 1.1,
    ),
    Intent(
        "new car loan", 3.5, "vehicle", "acquire",
        "auto:2 auto_new:3 auto_used:2.5 auto_rates:3 calc_auto:3 rates:0.7 ins_auto:0.6 apply_auto-loan_1:2",
        "auto_loan:0.95 insurance:0.05", "auto_loan:1 insurance:0.4",
        ("car loan refinance", "car and home insurance"),
        ("auto loan", "car loan calculator", "used car loan rates", "private party loan",
         "pre approved car loan"),
        ("auto-model-year",), 1.0, "calc_auto", "auto_rates",
    ),
    Intent(
        "car loan refinance", 1.5, "vehicle", "acquire",
        "auto_refi:4 auto_rates:3 calc_auto:2 auto:1.5 debt_consol:0.4 apply_auto-loan_1:2",
        "auto_loan:0.95 personal_loan:0.05", "auto_loan:1 personal_loan:0.2",
        ("new car loan", "debt consolidation"),
        ("refinance car loan", "auto refinance rates", "lower car payment"),
        ("auto-model-year",), 0.9, "auto_rates", "calc_auto",
    ),
    Intent(
        "debt consolidation", 3.5, "borrow", "acquire",
        "debt_consol:4 personal:2 personal_rates:2.5 calc_debt:3 art_debt:2 card_transfer:1 "
        "art_credit:0.5 apply_loan_1:2",
        "personal_loan:0.85 credit_card:0.15", "personal_loan:1 balance_transfer:0.6",
        ("balance transfer", "home improvement loan"),
        ("debt consolidation loan", "pay off credit cards", "personal loan rates", "combine debts"),
        ("one-payment",), 1.2,
    ),
    Intent(
        "home improvement loan", 1.5, "borrow", "acquire",
        "home_improve:4 personal:1.5 personal_rates:2 home_equity:2 calculators:0.8 refinance:0.5 "
        "apply_loan_1:1.8",
        "personal_loan:0.75 mortgage:0.25", "personal_loan:0.9 refinance:0.5",
        ("home equity borrowing", "debt consolidation"),
        ("home improvement loan", "roof financing", "kitchen loan", "renovation loan"),
        ("one-payment",), 1.0,
    ),
    Intent(
        "student loan refinance", 1.8, "study", "acquire",
        "student_loans:2.5 student_refi:4 art_repay:3 personal_rates:0.7 calc_debt:1.2 apply_loan_1:1.5",
        "personal_loan:1", "personal_loan:0.8 savings:0.2",
        ("debt consolidation", "student checking"),
        ("student loan refinance", "consolidate student loans", "income driven repayment",
         "cosigner release"),
        ("graduate-refi",), 1.2,
    ),
    Intent(
        "starting to invest", 3.0, "invest", "acquire",
        "investing:2.5 brokerage:3 art_index:3 invest_fees:2 managed:1.2 ira_compare:0.7 learn:0.8 "
        "apply_investing_1:1.8",
        "investment:1", "investing:1 retirement:0.4",
        ("managed portfolio", "retirement saving"),
        ("open brokerage account", "index funds", "buy stocks", "trading fees", "fractional shares"),
        ("invest-first-fund",), 1.3,
    ),
    Intent(
        "managed portfolio", 1.2, "invest", "acquire",
        "managed:4 investing:2 invest_fees:3 appointments:1.2 brokerage:1 calc_retire:0.8 "
        "apply_investing_1:1.5",
        "investment:1", "investing:1 retirement:0.5",
        ("starting to invest", "retirement saving"),
        ("financial advisor", "managed portfolio", "advisor fee", "wealth management"),
        ("invest-first-fund",), 1.2,
    ),
    Intent(
        "retirement saving", 2.2, "invest", "acquire",
        "retirement:2.5 ira_compare:4 calc_retire:3 rollover:1 cd_rates:0.7 managed:0.7 help_tax:0.5 "
        "apply_investing_1:1.3",
        "investment:0.85 cd:0.15", "retirement:1 investing:0.5 cd:0.2",
        ("401(k) rollover", "starting to invest", "CD rate comparison"),
        ("roth ira", "ira contribution limit", "retirement calculator", "traditional or roth"),
        ("retire-on-time",), 1.3,
    ),
    Intent(
        "401(k) rollover", 0.9, "invest", "acquire",
        "rollover:5 retirement:2 ira_compare:1.5 invest_fees:1.2 contact:1 appointments:0.8 "
        "apply_investing_1:1.5",
        "investment:1", "retirement:1 investing:0.4",
        ("retirement saving", "managed portfolio"),
        ("401k rollover", "old 401k", "rollover form", "transfer retirement account"),
        ("retire-on-time",), 1.1,
    ),
    Intent(
        "car and home insurance", 2.0, "protect", "acquire",
        "insurance:2 ins_auto:4 ins_quote:3 auto:0.6 mortgages:0.3 apply_insurance_1:1.8",
        "insurance:1", "insurance:1 auto_loan:0.2",
        ("new car loan", "life insurance"),
        ("car insurance quote", "home insurance", "renters insurance", "bundle discount"),
        ("bundle-and-save",), 0.9, "ins_quote",
    ),
    Intent(
        "life insurance", 0.7, "protect", "acquire",
        "ins_life:5 insurance:2 ins_quote:2 calc_retire:0.7 learn:0.7 apply_insurance_1:1.2",
        "insurance:0.9 investment:0.1", "insurance:1 retirement:0.2",
        ("car and home insurance", "retirement saving"),
        ("term life insurance", "life insurance quote", "life cover cost"),
        ("bundle-and-save",), 1.3,
    ),
    Intent(
        "small business checking", 1.8, "business", "acquire",
        "business:2.5 biz_checking:4 art_startup:2 checking_fees:0.8 appointments:1 branches:0.7 "
        "apply_business_1:2",
        "checking:0.85 credit_card:0.15", "checking_bonus:0.8 cash_back_card:0.3",
        ("small business credit", "checking account opening"),
        ("business checking", "business account documents", "llc bank account", "business account fees"),
        ("main-street",), 1.0,
    ),
    Intent(
        "small business credit", 0.9, "business", "acquire",
        "biz_loan:4 biz_card:3 business:2 rates:0.8 appointments:1 biz_checking:1 apply_business_1:1.5",
        "credit_card:0.6 personal_loan:0.4", "cash_back_card:0.6 personal_loan:0.7",
        ("small business checking",),
        ("business loan", "sba loan", "line of credit", "business credit card"),
        ("main-street",), 1.1,
    ),
    Intent(
        "dispute a charge", 3.5, "service", "service",
        "help_dispute:5 help_dispute_status:2.5 report_fraud:1.5 help:1.5 contact:1.2 "
        "help_statements:0.6 login:1",
        "", "card_security:1",
        ("fraud or lost card", "log in problems"),
        ("dispute a charge", "charged twice", "refund not received", "dispute status",
         "merchant wrong amount"),
        (), 0.9, "help", "help_dispute_status",
    ),
    Intent(
        "fraud or lost card", 3.0, "service", "service",
        "report_fraud:4 lost_card:4 security:2 art_phish:1.2 contact:2 help:0.8 help_dispute:0.8 login:1",
        "", "card_security:1 insurance:0.1",
        ("dispute a charge", "log in problems"),
        ("lost card", "stolen card", "suspicious charge", "lock card", "report fraud", "text message scam"),
        (), 0.6, "contact report_fraud",
    ),
    Intent(
        "log in problems", 4.0, "service", "service",
        "login:4 help_password:4 help_locked:2.5 help:1.5 contact:1.2 security:0.7",
        "", "card_security:0.4",
        ("statements and tax forms", "fraud or lost card"),
        ("forgot password", "locked out", "reset password", "username", "code not received"),
        (), 0.5, "login",
    ),
    Intent(
        "statements and tax forms", 2.5, "service", "service",
        "help_statements:4 help_tax:4 login:2 help:1.5 contact:0.5 mortgage_rates:0.15",
        "", "investing:0.1 retirement:0.15",
        ("log in problems", "wires and routing numbers"),
        ("1099", "1098 form", "bank statement", "tax documents", "proof of funds letter"),
        (), 0.7, "", "login",
    ),
    Intent(
        "wires and routing numbers", 2.5, "service", "service",
        "help_routing:4 help_wire:3.5 help_deposit:2 help:1.2 contact:0.8 login:1",
        "", "checking_bonus:0.2 savings:0.1",
        ("statements and tax forms", "find a branch"),
        ("routing number", "wire transfer", "swift code", "account number", "direct deposit form"),
        (), 0.6, "help_routing",
    ),
    Intent(
        "find a branch", 4.0, "service", "service",
        "branches:4 branch:5 appointments:1.5 contact:1.2 help:0.5",
        "", "checking_bonus:0.15",
        ("wires and routing numbers", "checking account opening"),
        ("branch near me", "atm", "branch hours", "open saturday", "notary"),
        (), 0.6, "branches", "branch",
    ),
    Intent(
        "jobs and company news", 1.0, "info", "service",
        "careers:4 job:5 about:2.5 news:2 privacy:0.7",
        "", "",
        ("find a branch",),
        ("jobs", "careers", "teller job", "internship", "annual report"),
        (), 1.0, "careers", "job",
    ),
)  # fmt: skip

#: Advertisements: name → the page they lead to, and how much money is behind them.
CAMPAIGNS: dict[str, tuple[str, float]] = {
    "cards-cash-back": ("card_cash", 3.0),
    "cards-pre-approved": ("card_qualify", 2.5),
    "voyager-travel": ("card_travel", 3.0),
    "zero-interest-transfer": ("card_transfer", 1.5),
    "campus-start": ("card_student", 1.0),
    "home-loans-spring": ("mortgages", 2.0),
    "refi-watch": ("refinance", 1.5),
    "savings-rate-rise": ("savings_high", 2.5),
    "cd-spring-special": ("cd_rates", 1.5),
    "checking-bonus-300": ("offers", 3.0),
    "auto-model-year": ("auto", 1.5),
    "one-payment": ("debt_consol", 1.2),
    "graduate-refi": ("student_refi", 0.7),
    "invest-first-fund": ("art_index", 1.2),
    "retire-on-time": ("retirement", 0.8),
    "bundle-and-save": ("insurance", 0.8),
    "main-street": ("business", 0.8),
    "spring-offers": ("offers", 3.0),
}


def weights(text: str) -> dict[str, float]:
    """``"a:2 b:0.5"`` → ``{"a": 2.0, "b": 0.5}``."""
    pairs = (part.rsplit(":", 1) for part in text.split())
    return {name: float(value) for name, value in pairs}
