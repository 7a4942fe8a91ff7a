"""The bank's pages: key, path, area, role, title and body text. All names are invented.

A path may hold one placeholder (``{zip}``, ``{application}``, ``{job}``), which every concrete URL fills
with an id of its own; articles and products carry fixed numbers. The role says what a page is for, and
so how long people stay and when in a visit they come to it.
"""

from __future__ import annotations

from typing import NamedTuple

ROLES = (
    "home",
    "hub",
    "product",
    "rates",
    "calculator",
    "compare",
    "article",
    "qualify",
    "apply",
    "help",
    "search",
    "login",
    "branch",
    "info",
)


class Page(NamedTuple):
    key: str
    path: str
    area: str
    role: str
    title: str
    text: str


_PAGES = """
home | / | home | home
Personal and Business Banking
Bank, borrow, save and invest with one team. Log in to your accounts, compare today's rates, or find the
card, loan or savings account that fits.

login | /login | home | login
Log In to Your Accounts
Enter your username and password to see your accounts. Never share a one-time code with anyone, including
people who say they work for the bank.

search | /search | home | search
Search Results
Pages, help articles and products that match what you typed. Narrow the list to products or help, or try
fewer words.

offers | /offers | home | hub
Current Offers and Welcome Bonuses
See every welcome bonus and promotional rate in one place: new checking customers, new cardholders, and
savers who bring a balance from elsewhere.

rates | /rates | home | rates
Today's Rates at a Glance
Annual percentage yields for savings and certificates of deposit beside today's mortgage, auto and
personal loan rates. Updated every business morning.

calculators | /calculators | home | calculator
Financial Calculators
Work out a monthly payment, a savings goal, a payoff date or a retirement number. Nothing you type here is
kept or affects your credit.

learn | /learn | home | hub
Money Guides and Articles
Plain-language guides to credit, home buying, saving, investing and protecting your money, written and
reviewed by people who work at our branches.

cards | /cards | cards | hub
Credit Cards
Cash back, travel, low interest or credit building: every card we issue, with its annual fee, rewards and
purchase rate side by side.

cards_compare | /cards/compare | cards | compare
Compare Credit Cards
Put up to three cards next to each other. Compare rewards, annual fees, introductory offers, foreign
transaction fees and the rate after the introductory period.

card_cash | /cards/cash-back/p-2041 | cards | product
Everyday Cash Back Card
Unlimited two percent back on every purchase, no annual fee and no categories to remember. Redeem for a
statement credit or a deposit at any time.

card_student | /cards/student/p-2063 | cards | product
Campus Card for Students
A first card for students: no annual fee, no credit history required, and a higher limit after six months
of payments made on time.

card_secured | /cards/secured/p-2077 | cards | product
Secured Credit Card
Build or rebuild credit with a refundable deposit from two hundred dollars. We report to all three bureaus
and review you for an unsecured card.

card_transfer | /cards/balance-transfer/p-2070 | cards | product
Balance Transfer Card
Move balances from other cards and pay no interest for eighteen months. See the transfer fee and what you
would save before you decide.

card_qualify | /cards/see-if-you-qualify | cards | qualify
See If You Qualify for a Card
Find out which cards you are pre-approved for in about a minute. Checking is a soft inquiry and does not
change your credit score.

card_rates | /cards/rates-and-fees | cards | rates
Card Rates and Fees
Purchase, transfer and cash advance rates for every card, with annual fees, late fees and the way the
prime rate changes them.

art_rewards | /learn/articles/30112/how-card-rewards-work | cards | article
How Card Rewards Really Work
Points, miles and cash back are worth different amounts. Learn how issuers fund rewards, when an annual
fee pays for itself, and when it does not.

art_credit | /learn/articles/30127/build-credit-from-scratch | cards | article
How to Build Credit from Scratch
Five habits that build a score from nothing: a secured or student card, small balances, automatic
payments, patience, and a yearly look at your reports.

card_travel | /cards/travel/p-2057 | travel | product
Voyager Travel Rewards Card
Three points per dollar on flights, hotels and dining, no foreign transaction fees, and a fifty-thousand-
point welcome bonus after the first three months.

travel_benefits | /cards/travel/benefits | travel | info
Travel Card Benefits and Lounge Access
Trip cancellation cover, lost luggage reimbursement, rental car insurance and access to twelve hundred
airport lounges: what your card covers and how to claim.

art_miles | /learn/articles/30159/points-and-miles-for-beginners | travel | article
Points and Miles for Beginners
Transfer partners, award charts and blackout dates explained, with a worked example of a family trip paid
for with one year of ordinary spending.

mortgages | /mortgages | mortgages | hub
Mortgages and Home Loans
Buying, refinancing or borrowing against your home: see which loan fits, what it costs each month, and how
long each step usually takes.

mortgage_buy | /mortgages/buy-a-home | mortgages | product
Home Purchase Loans
Fixed and adjustable loans from three percent down. Compare conventional, FHA, VA and jumbo loans, and
learn what documents a lender will ask for.

mortgage_rates | /mortgages/rates | mortgages | rates
Mortgage Rates Today
Today's rates for thirty, twenty and fifteen year fixed loans and adjustable loans, with points and annual
percentage rate, for purchase and for refinance.

mortgage_qualify | /mortgages/pre-approval | mortgages | qualify
Mortgage Pre-Approval
Show sellers you are serious. Tell us about your income, savings and debts and get a pre-approval letter,
usually within one business day.

calc_mortgage | /calculators/mortgage-payment | mortgages | calculator
Mortgage Payment Calculator
Estimate principal, interest, taxes and insurance for a home price and down payment. Change the rate or
the term and watch the payment follow.

calc_afford | /calculators/home-affordability | mortgages | calculator
How Much House Can I Afford?
Enter income, debts and savings to see a comfortable price range. We show the debt-to-income ratio that a
lender would see.

art_firsthome | /learn/articles/31204/first-home-step-by-step | mortgages | article
Your First Home, Step by Step
From saving the down payment to the final walk-through: what happens in each week of buying a first home,
and who you will need to call.

art_closing | /learn/articles/31219/closing-costs-explained | mortgages | article
Closing Costs Explained
Appraisal, title insurance, escrow and points: what each line on the closing disclosure means, what is
negotiable, and how much cash to bring.

refinance | /mortgages/refinance | refinance | product
Refinance Your Mortgage
Lower your rate, shorten your term or take cash out. See what refinancing would cost and how many months
it takes to earn that back.

calc_refi | /calculators/refinance-break-even | refinance | calculator
Refinance Break-Even Calculator
Compare your current loan with a new one. Enter both rates and the closing costs to find the month in
which refinancing starts to pay.

home_equity | /mortgages/home-equity/p-3310 | refinance | product
Home Equity Line of Credit
Borrow against the value of your home as you need it, with interest-only payments for ten years and no
closing costs on most lines.

art_refi | /learn/articles/31256/when-refinancing-makes-sense | refinance | article
When Refinancing Makes Sense
A lower rate is not always a cheaper loan. How to weigh closing costs, the time you will stay, and a term
that starts again.

savings | /savings | savings | hub
Savings Accounts
Accounts for emergencies, goals and children. Compare yields and minimums, and see how automatic transfers
build a balance you do not have to think about.

savings_high | /savings/high-yield/p-1108 | savings | product
High-Yield Savings Account
Earn a competitive variable yield on every dollar, with no monthly fee and no minimum. Move money to or
from any bank in a day.

savings_kids | /savings/kids/p-1131 | savings | product
Savings Accounts for Kids
Help a child save for something that matters. Parents keep control, children watch the balance grow, and
the yield matches our grown-up account.

savings_rates | /savings/rates | savings | rates
Savings Account Rates
Current annual percentage yields for all savings and money market accounts by balance tier, with the
history of the past twelve months.

calc_goal | /calculators/savings-goal | savings | calculator
Savings Goal Calculator
How much a month, and for how long? Set a goal and a date, and see what interest contributes along the
way.

art_emergency | /learn/articles/32018/how-big-an-emergency-fund | savings | article
How Big Should an Emergency Fund Be?
Three months of expenses, or six? A way to choose your own number, where to keep it, and how to start with
twenty dollars a week.

cds | /savings/cds | cds | hub
Certificates of Deposit
Lock in a fixed yield for three months to five years. Choose a standard, bump-up or no-penalty
certificate, insured up to the legal limit.

cd_rates | /savings/cds/rates | cds | rates
CD Rates by Term
Fixed annual percentage yields for every term from three to sixty months, with the minimum deposit and the
penalty for taking money out early.

calc_ladder | /calculators/cd-ladder | cds | calculator
CD Ladder Calculator
Split a deposit over several terms so that part of it matures every few months. See the blended yield and
the maturity dates.

art_cdsave | /learn/articles/32044/cd-or-savings-account | cds | article
CD or Savings Account?
Both are insured, but one is locked and the other may change its yield tomorrow. Four questions that
decide which suits the money you have.

checking | /checking | checking | hub
Checking Accounts
Everyday accounts without surprises: early direct deposit, forty thousand fee-free cash machines, and a
debit card you can lock from your phone.

checking_every | /checking/everyday/p-1004 | checking | product
Everyday Checking
No monthly fee with a direct deposit of any size. Open online in five minutes with a driver's license and
twenty-five dollars.

checking_student | /checking/student/p-1019 | checking | product
Student Checking
For students aged seventeen to twenty-four: no monthly fee, no overdraft fee, and refunds of other banks'
cash machine charges.

checking_compare | /checking/compare | checking | compare
Compare Checking Accounts
Fees, minimum balances, interest and cash machine refunds for our three checking accounts, in one table
that fits on a page.

checking_fees | /checking/fees | checking | rates
Checking Fees and Overdraft Options
Every fee we charge, when, and how to avoid it. Choose how overdrafts are handled: decline, transfer from
savings, or a small grace amount.

art_switch | /learn/articles/33007/how-to-switch-banks | checking | article
How to Switch Banks Without Missing a Bill
List the automatic payments, move the direct deposit first, keep both accounts for a month: a checklist
for changing banks calmly.

auto | /auto-loans | auto | hub
Auto Loans
Finance a new or used car, or lower the payment on the one you drive. Get a decision in minutes and shop
as a cash buyer.

auto_new | /auto-loans/new-car/p-4102 | auto | product
New Car Loans
Terms from thirty-six to eighty-four months on new cars, with a rate that is held for thirty days while
you talk to dealers.

auto_used | /auto-loans/used-car/p-4115 | auto | product
Used Car and Private Party Loans
Buy from a dealer or from a neighbor. We check the title and the value, and pay the seller directly.

auto_refi | /auto-loans/refinance/p-4128 | auto | product
Refinance Your Car Loan
Bring us a loan from another lender. Most customers who refinance a car lower the payment within two
weeks, with no application fee.

auto_rates | /auto-loans/rates | auto | rates
Auto Loan Rates
Current annual percentage rates for new, used and refinanced cars by term and model year, and what changes
the rate you are offered.

calc_auto | /calculators/auto-loan | auto | calculator
Auto Loan Calculator
Price, trade-in, down payment and term in; monthly payment and total interest out. Compare two offers side
by side.

personal | /personal-loans | personal | hub
Personal Loans
Fixed payments from two to seven years with no collateral. Use one for a project, a wedding or to put
several debts into one.

debt_consol | /personal-loans/debt-consolidation | personal | product
Debt Consolidation Loans
Replace several card balances with one fixed payment. We can pay your creditors directly, and you see the
payoff date from the first day.

home_improve | /personal-loans/home-improvement | personal | product
Home Improvement Loans
Fund a roof, a kitchen or new windows without using your home as security. Money often arrives the next
business day.

personal_rates | /personal-loans/rates | personal | rates
Personal Loan Rates and Terms
Rates by loan amount, term and credit band, with the discount for automatic payments and no penalty for
paying early.

calc_debt | /calculators/debt-payoff | personal | calculator
Debt Payoff Calculator
List your balances and rates, choose the snowball or the avalanche, and see the month in which you would
be free of debt.

art_debt | /learn/articles/34011/paying-off-card-debt | personal | article
Three Ways to Pay Off Card Debt
A balance transfer, a consolidation loan or a strict plan: what each costs, whom each suits, and the
mistake that makes all three fail.

student_loans | /student-loans | student | hub
Student Loans and Refinancing
Combine federal and private loans into one payment, or borrow for the coming year. Read first what you
give up when you refinance federal loans.

student_refi | /student-loans/refinance/p-4407 | student | product
Refinance Student Loans
One lender, one payment, one rate. Add a cosigner, release them after two years, and pause payments if you
lose your job.

art_repay | /learn/articles/34052/student-loan-repayment-plans | student | article
Student Loan Repayment Plans Compared
Standard, graduated and income-driven plans in one table, with the monthly payment of a typical graduate
under each of them.

investing | /investing | investing | hub
Investing and Brokerage
Trade on your own, let us manage a portfolio, or do some of each. Commission-free stocks and funds, and
people to ask.

brokerage | /investing/brokerage/p-5203 | investing | product
Self-Directed Brokerage Account
Buy stocks, funds and bonds without commission. Research tools, fractional shares and tax documents that
arrive on time.

managed | /investing/managed-portfolios/p-5219 | investing | product
Managed Portfolios
Answer eight questions and we build, rebalance and tax-manage a portfolio of low-cost funds. An adviser
calls you once a year.

invest_fees | /investing/pricing | investing | rates
Investing Fees and Pricing
What trades, transfers, wires and advice cost, and what is free. A worked example for accounts of ten and
one hundred thousand dollars.

art_index | /learn/articles/35006/index-funds-in-plain-words | investing | article
Index Funds in Plain Words
Why most people own the whole market instead of picking stocks, what an expense ratio does over thirty
years, and how to buy the first fund.

retirement | /retirement | retirement | hub
Retirement Accounts
Traditional and Roth accounts, rollovers and required distributions. Start with one question: would you
rather pay the tax now or later?

ira_compare | /retirement/roth-or-traditional | retirement | compare
Roth or Traditional IRA?
Contribution limits, income limits, deductions and withdrawals next to each other, with three examples at
different ages and tax brackets.

rollover | /retirement/rollover/p-5408 | retirement | product
Roll Over a 401(k)
Left a job? Move the old plan into an account you control without tax or penalty. We call the old provider
with you.

calc_retire | /calculators/retirement | retirement | calculator
Retirement Calculator
Will it last? Enter your age, savings and contributions to see a likely range of monthly income, and what
one more year of work adds.

insurance | /insurance | insurance | hub
Insurance
Compare cover for car, home and life from several insurers in one place, with the discount for customers
who bundle.

ins_auto | /insurance/auto-and-home | insurance | product
Auto and Home Insurance
Bundle a car and a home or a rented apartment, choose a deductible you could really pay, and see the price
from six companies.

ins_life | /insurance/life/p-6117 | insurance | product
Term Life Insurance
Cover for ten, twenty or thirty years at a fixed price. Most healthy people under fifty need no medical
examination.

ins_quote | /insurance/quote | insurance | qualify
Get an Insurance Quote
Tell us what you want to protect and where you live. A quote takes four minutes and no one will call
unless you ask.

business | /business | business | hub
Small Business Banking
Accounts, cards, payments and loans for companies of one to a hundred people, with a banker who knows your
street.

biz_checking | /business/checking/p-7011 | business | product
Business Checking
Two hundred free transactions a month, cash deposits at any branch, and access for your accountant without
sharing a password.

biz_card | /business/credit-card/p-7026 | business | product
Business Credit Card
Cash back on office supplies, phone and internet, free cards for employees, and limits you set for each of
them.

biz_loan | /business/loans/p-7040 | business | product
Business Loans and Lines of Credit
Government-backed loans, equipment finance and a revolving line for slow months. See which documents to
bring before you apply.

art_startup | /learn/articles/36002/bank-account-for-a-new-business | business | article
Banking for a New Business
Sole proprietor or company, one account or two, and which papers the bank must see: what to settle in the
first month.

security | /security | security | hub
Security Center
How we protect your accounts, how you can, and where to turn when something looks wrong. Alerts, card
locks and two-step log in.

report_fraud | /security/report-fraud | security | help
Report Fraud or a Suspicious Charge
If you did not make a payment, call us now or lock the card in the app. We stop the card first and ask
questions afterwards.

lost_card | /security/lost-or-stolen-card | security | help
Lost or Stolen Card
Lock the card, order a new one and see which automatic payments need the new number. You are not liable
for charges you did not make.

art_phish | /learn/articles/37015/spot-a-phishing-message | security | article
How to Spot a Phishing Message
Urgency, a link and a request for a code: the three marks of a false message from the bank, with real
examples to look at.

help | /help | help | hub
Help Center
Answers about cards, payments, log in, statements and your profile. Search for a question, or talk to a
person day and night.

help_dispute | /help/dispute-a-charge | help | help
Dispute a Charge
Wrong amount, never delivered, charged twice? Gather the receipt, try the merchant, then file a dispute.
Most are settled within thirty days.

help_dispute_status | /help/dispute-status | help | help
Track a Dispute
Where a dispute stands, what the merchant has answered, when a temporary credit becomes final, and how to
send more evidence.

help_password | /help/reset-password | help | help
Forgot Username or Password
Reset a password or find a username with your account number and the phone we have on file. Codes arrive
within a minute.

help_locked | /help/account-locked | help | help
Why Is My Account Locked?
Three wrong passwords, a new device abroad or a safety hold: how to tell which it is, and how to get back
in.

help_statements | /help/statements | help | help
Statements and Documents
Find seven years of statements, change to paperless delivery, or order a paper copy for a landlord or a
lender.

help_tax | /help/tax-forms | help | help
Tax Forms and When They Arrive
Interest, mortgage and brokerage forms by date, where to download each, and what to do when one looks
wrong.

help_routing | /help/routing-number | help | help
Routing and Account Numbers
The routing number for paper and electronic payments, where to find it on a check, and which one to give
to your employer.

help_wire | /help/wire-transfers | help | help
Send or Receive a Wire
Cut-off times, fees and the details that a domestic or international wire needs, including our SWIFT code
and bank address.

help_deposit | /help/direct-deposit | help | help
Set Up Direct Deposit
Download a form that is filled in already, or give your employer two numbers. Most pay arrives up to two
days early.

help_travel | /help/travel-notice | help | help
Using Your Card Abroad
You need not tell us that you travel, but do check your phone number. Fees, exchange rates and what to do
if a card is refused.

contact | /contact | help | help
Contact Us
Telephone numbers by topic, secure messages, and the hours in which a person answers. Calls from abroad
are free.

branches | /branches | branches | branch
Find a Branch or ATM
Search by place or ZIP code for branches, drive-through windows and fee-free cash machines, with opening
hours and the next free appointment.

branch | /branch/{zip} | branches | branch
Branch Details and Hours
Opening hours, drive-through, safe deposit boxes and notary service at this branch. Book a time with a
banker, or see how busy it is.

appointments | /branches/appointments | branches | branch
Book an Appointment
Choose a topic, a branch and a time. Bring two forms of identification, and any letters or statements you
want to talk about.

about | /about | about | info
About the Bank
Founded by river merchants in 1884 and still owned by its members. Our history, our leadership and what we
do with your deposits.

news | /about/newsroom | about | info
Newsroom
Press releases, quarterly results and contacts for journalists. Recent news about branches, community
lending and the people who lead the bank.

privacy | /about/privacy | about | info
Privacy and Cookies
What we collect, why, for how long, and how to ask for a copy or have it removed. Change your cookie
choices here.

careers | /careers | careers | hub
Careers
Branch, technology, risk and operations jobs in eleven cities and from home. Read how we hire and what the
first year is like.

job | /careers/jobs/{job} | careers | info
Job Opening
What you would do, whom you would work with, the pay range and the benefits of this position, and how to
apply before it closes.
""".strip()

#: Applications: area slug, noun, and the area of the site to which each belongs. Three steps each.
_APPLICATIONS = (
    ("cards", "Credit Card", "cards"),
    ("mortgage", "Home Loan", "mortgages"),
    ("deposits", "Deposit Account", "savings"),
    ("auto-loan", "Auto Loan", "auto"),
    ("loan", "Personal Loan", "personal"),
    ("investing", "Investment Account", "investing"),
    ("insurance", "Insurance Policy", "insurance"),
    ("business", "Business Account", "business"),
)
_STEPS = (
    (
        "About You",
        "{noun} application, step one of three: your name, address and date of birth. "
        "You can save it and return within thirty days.",
    ),
    (
        "Income and Details",
        "{noun} application, step two of three: income, housing and the details of what you are applying "
        "for. Have a recent pay slip at hand.",
    ),
    (
        "Review and Submit",
        "{noun} application, step three of three: read the disclosures, check what you entered and submit. "
        "Most decisions arrive within minutes.",
    ),
)


def _parse() -> tuple[Page, ...]:
    pages = []
    for record in _PAGES.split("\n\n"):
        head, title, body = record.split("\n", 2)
        key, path, area, role = (part.strip() for part in head.split("|"))
        pages.append(Page(key, path, area, role, title, body.replace("\n", " ")))
    for slug, noun, area in _APPLICATIONS:
        for step, (name, text) in enumerate(_STEPS, start=1):
            path = f"/apply/{slug}/{{application}}/step-{step}"
            title = f"{noun} Application: {name}"
            pages.append(Page(f"apply_{slug}_{step}", path, area, "apply", title, text.format(noun=noun)))
    return tuple(pages)


#: Every page template of the site.
PAGES: tuple[Page, ...] = _parse()

#: A section that opens only where the bank changes (see ``change``); one page of each role.
NEW_PAGES: tuple[Page, ...] = (
    Page(
        "instalments",
        "/instalments",
        "instalments",
        "hub",
        "Pay in Instalments",
        "Split a purchase into monthly parts after you made it: which purchases qualify, what it costs and "
        "how to begin, all in one place.",
    ),
    Page(
        "instalments_plan",
        "/instalments/plan",
        "instalments",
        "product",
        "The Twelve Month Instalment Plan",
        "Turn any card purchase over one hundred dollars into twelve equal parts with one fixed monthly fee "
        "and no interest on top.",
    ),
    Page(
        "instalments_calc",
        "/instalments/calculator",
        "instalments",
        "calculator",
        "Instalment Calculator",
        "Enter a price and a number of months and see the monthly part, the fee and the total before you "
        "commit to a plan.",
    ),
    Page(
        "instalments_how",
        "/instalments/how-it-works",
        "instalments",
        "article",
        "How Paying in Instalments Works",
        "When a plan is cheaper than carrying a balance, what happens if you miss a part, and how it shows "
        "on your credit report.",
    ),
    Page(
        "help_instalments",
        "/help/instalments",
        "help",
        "help",
        "Help with an Instalment Plan",
        "Pay off a plan early, move its payment date, return what you bought, or ask why a purchase does not "
        "qualify for one.",
    ),
)
