from seventy.cli import main

main()
