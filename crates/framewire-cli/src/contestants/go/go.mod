module framewire.invalid/contestant

go 1.18
