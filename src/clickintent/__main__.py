from clickintent.cli import main

main()
